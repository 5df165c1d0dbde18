"""Registration that depends on where it runs."""
import asyncio
import os

from billing import book
from omnidaemon import AgentConfig, OmniDaemonSDK

sdk = OmniDaemonSDK()
ENV = os.getenv("ENV")


async def register_staging():
    await sdk.register_agent(agent_config=AgentConfig(topic="staging.only", callback=book))


async def register_checked():
    if not await database_is_healthy():
        print("database unhealthy")
        return
    await sdk.register_agent(agent_config=AgentConfig(topic="checked", callback=book))


async def main():
    if os.getenv("ENV") == "production":
        await sdk.register_agent(agent_config=AgentConfig(topic="production.only", callback=book))
        if os.environ["REGION"] in ("eu", "us"):
            await sdk.register_agent(agent_config=AgentConfig(topic="two.regions", callback=book))
    else:
        await sdk.register_agent(agent_config=AgentConfig(topic="not.production", callback=book))
    if ENV == "staging":
        await register_staging()
    if await database_is_healthy():
        await sdk.register_agent(agent_config=AgentConfig(topic="healthy", callback=book))
    await register_checked()
    if os.environ.get("TIER") != "paid":
        return
    await sdk.register_agent(agent_config=AgentConfig(topic=os.getenv("PAID_TOPIC", "paid"), callback=book))


if __name__ == "__main__":
    asyncio.run(main())
