"""What a failure means."""
def explain(result, subject, job):
    return {}
