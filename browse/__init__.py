"""A store in a web browser: the pages of `captioner browse`, served by Datasette, and the gallery page.

The pages only read. What they search stands in a copy beside the store.
"""
