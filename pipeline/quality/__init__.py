"""Quality of catalogues: verification of files, validation against true values."""
