"""Where jobs run: Ray lives here."""
