"""Formats that several fact tables read: a file's bytes or a root in, values out."""
