"""Experiments: names turned into objects, trained, kept in a folder, opened again and measured."""

from ornstein.plugins import load_installed

load_installed()  # whoever turns names into objects knows the names that installed packages add
