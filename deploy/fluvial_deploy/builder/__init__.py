"""The builder: turns an uploaded archive into something that instances can execute."""
