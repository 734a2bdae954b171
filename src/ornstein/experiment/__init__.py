"""Experiments: names turned into objects, trained, kept in a folder, opened again and measured."""
