def page(path): pass
