"""The online side: loads a published artefact and answers with a user's top K."""
