"""What people read: figures and tables in notebooks, a page per executed notebook, an index page per experiment."""
