def handle(message):
    return {"nested": True}
