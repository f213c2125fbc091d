"""Further passes of the model beside an answer."""
