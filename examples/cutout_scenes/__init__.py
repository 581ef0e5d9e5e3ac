"""Photographs of objects, cut out, and of places, out of Debian's packages."""
