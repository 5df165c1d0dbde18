"""Agents in processes of their own, by the ways to make a supervisor."""
import asyncio
import logging
import sys
from pathlib import Path

from omnidaemon import AgentConfig, OmniDaemonSDK, SubscriptionConfig, start_api_server
from omnidaemon.agent_runner.agent_supervisor import AgentSupervisor
from omnidaemon.agent_runner.agent_supervisor_runner import create_supervisor_from_directory, shutdown_all_supervisors
from omnidaemon.agent_runner.types import AgentProcessConfig

logger = logging.getLogger(__name__)
sdk = OmniDaemonSDK()
HERE = Path(__file__).parent
_summary = None


async def get_summary():
    global _summary
    if _summary is None:
        _summary = await create_supervisor_from_directory(agent_name="summary", agent_dir="./agents/summary", callback_function="handle_request", request_timeout=300.0)
    return _summary


async def summarize(message):
    supervisor = await get_summary()
    logger.info("got %s", message)
    result = await supervisor.handle_event(message)
    return result


async def write(message):
    message["content"] = clean(message["content"])
    supervisor = await create_supervisor_from_directory("writer", str(HERE / "agents" / "writer"), "agent.handle_request", max_restart_attempts=5, language="python")
    return await supervisor.handle_event(message)


worker = AgentSupervisor(
    AgentProcessConfig(
        name="worker",
        command="./worker",
        args=["--fast", "-n", "3"],
        request_timeout=float("inf"),
        graceful_timeout_sec=5.0,
        sigterm_timeout_sec=5.0,
        restart_on_exit=True,
        restart_backoff_seconds=2.5,
        heartbeat_interval_seconds=30.0,
        env={"MODE": "batch", "LEVEL": "1.50"},
        cwd="agents",
        nice=5,
    ),
    store=None,
)
adapted = AgentProcessConfig(
    name="adapted",
    command=sys.executable,
    args=["-m", "omnidaemon.agent_runner.python_callback_adapter", "--module", "agents.summary.callback", "--function", "handle_request"],
    cwd=str(HERE / "agents/summary"),
)


async def main():
    adapter = AgentSupervisor(config=adapted)
    await sdk.register_agent(agent_config=AgentConfig(topic="text.long", name="summary", callback=summarize, config=SubscriptionConfig(consumer_count=3), tools=[]))
    await sdk.register_agent(agent_config=AgentConfig(topic="text.idea", callback=write))
    await sdk.register_agent(agent_config=AgentConfig(topic="work", callback=worker.handle_event))
    await sdk.register_agent(agent_config=AgentConfig(topic="text.short", callback=lambda m: adapter.handle_event(m)))
    await sdk.start()
    asyncio.create_task(start_api_server(sdk, host="0.0.0.0", port=8765))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
