async def handle_request(message): return {}
