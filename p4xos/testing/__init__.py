"""What tests the roles and what is built on them: models, vectors, simulator, fakes."""
