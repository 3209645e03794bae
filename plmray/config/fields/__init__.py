"""The fields of a sweep file as types, each with its default, bounds and meaning."""
