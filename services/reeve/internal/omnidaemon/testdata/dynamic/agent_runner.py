"""What only running the program would tell."""
import functools
import os

import yaml
from callbacks import book
from elsewhere import unseen
from omnidaemon import AgentConfig, OmniDaemonSDK
from omnidaemon.agent_runner.agent_supervisor_runner import create_supervisor_from_directory

sdk = OmniDaemonSDK()
common = {"version": "1.0.0"}


async def register(topic, callback):
    await sdk.register_agent(agent_config=AgentConfig(topic=topic, callback=callback))


async def outside(message):
    supervisor = await create_supervisor_from_directory(agent_name="x", agent_dir="../elsewhere", callback_function="f")
    return await supervisor.handle_event(message)


async def unknown(message):
    return await message.app.supervisor.handle_event(message)


async def main(config):
    with open("agents.yaml") as f:
        listed = yaml.safe_load(f)
    for agent in listed["agents"]:
        await sdk.register_agent(agent_config=AgentConfig(topic=agent["topic"], callback=agent["callback"], name=agent["name"]))
    await sdk.register_agent(agent_config=AgentConfig(topic="a", callback=functools.partial(book, 1)))
    await sdk.register_agent(agent_config=AgentConfig(topic=os.environ["TOPIC"], callback=book))
    await sdk.register_agent(agent_config=AgentConfig(topic="b", callback=book, **common))
    await sdk.register_agent(agent_config=config)
    await sdk.register_agent(agent_config=AgentConfig(topic="c", callback=outside))
    await sdk.register_agent(agent_config=AgentConfig(topic="d", callback=unknown))
    await sdk.register_agent(agent_config=AgentConfig(topic="e", callback=unseen, version=os.environ["VERSION"], priority=7, tools=[book]))
    await sdk.delete_agent(topic="old", agent_name="agent")
    await register("f", book)
