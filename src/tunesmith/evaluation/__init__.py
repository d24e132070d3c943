"""Measure a trained model beside its base; never trains."""
