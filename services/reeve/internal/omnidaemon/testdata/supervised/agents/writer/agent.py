async def handle_request(message):
    return {"result": "summarized"}
