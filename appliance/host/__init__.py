"""What any program of the host's needs: files, directories, processes. None of it ships."""
