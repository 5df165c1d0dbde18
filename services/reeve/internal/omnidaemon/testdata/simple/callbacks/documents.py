async def scan(message):
    return {"scanned": message["content"]}
