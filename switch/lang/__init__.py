"""A P4-16 subset for v1model: from text to one intermediate representation, and onwards."""
