"""The contract between the offline trainer and the online service.

Errors, ids and the artefact. Imports neither torch nor a web framework.
"""
