"""Images shipped with the package; `README.md` in this folder lists origins and licences."""
