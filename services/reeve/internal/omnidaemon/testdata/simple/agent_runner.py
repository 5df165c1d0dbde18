"""Several agents in one runner, in the plain form."""
import asyncio
import signal

import callbacks.documents
from invoices import book
from omnidaemon import AgentConfig, OmniDaemonSDK, SubscriptionConfig

sdk = OmniDaemonSDK()
TOPIC = "invoice"
MINUTE = 60 * 1000


async def greet(message: dict):
    return {"hello": message.get("content", {}).get("name")}


async def main():
    await sdk.register_agent(agent_config=AgentConfig(topic="people.arrived", callback=greet))
    await sdk.register_agent(
        agent_config=AgentConfig(
            topic="document.uploaded",
            callback=callbacks.documents.scan,
            name="document-scanner",
            description="Scans uploads: fast, \"well\" & <often>",
            version="2.1",
            tags=["documents", "upload: fast"],
            config=SubscriptionConfig(max_retries=5, reclaim_idle_ms=5 * MINUTE, dlq_enabled=False),
        )
    )
    subscription = SubscriptionConfig(reclaim_idle_ms=6000, dlq_retry_limit=2, consumer_count=4)
    await sdk.register_agent(AgentConfig(name="book keeper", topic=f"{TOPIC}.created", callback=book, tools=[], config=subscription))
    await sdk.start()
    try:
        while True:
            await asyncio.sleep(1)
    except KeyboardInterrupt:
        pass
    finally:
        await sdk.shutdown()


asyncio.run(main())
