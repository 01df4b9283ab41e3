from pydantic import TypeAdapter

from distvae.trial import Trial


def trial_from_data(data):
    return TypeAdapter(Trial).validate_python(data)
