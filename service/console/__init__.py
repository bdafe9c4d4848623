"""The console: a page at ``/console`` that shows what the model does, and what that page asks beyond the public API."""
