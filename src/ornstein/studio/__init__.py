"""The studio: a local web page to look at diffusion models, over `ornstein.experiment` alone.

`ornstein studio` opens it. Nothing here knows how anything is done: it turns a page's controls into calls and results
into pictures, so that the browser and the command line cannot differ.
"""
