def book(message):
    return {"booked": True}
