"""`captioner browse`: a store in a web browser, by Datasette.

Reading only; what it shows stands in a copy beside the store.
"""
