from omnidaemon import AgentConfig as Agent, OmniDaemonSDK as SDK, SubscriptionConfig as Sub
from work import book as b

# No name here is the usual one, and values are as odd as they may be.
s = SDK()
s.register_agent(Agent(topic="täst:queue", name="--x__y--", callback=b))
s.register_agent(Agent(topic="true", name="007", description="# no comment\n- {a: b}\u2028 'x'", callback=b, tags=["null", "1.0", ""]))
s.register_agent(Agent(topic="same", callback=b))
s.register_agent(Agent(topic="same", callback=b))
s.register_agent(Agent(topic="high", callback=b, config=Sub(max_retries=-1)))
s.register_agent(Agent(topic="", callback=b))
s.register_agent(Agent(topic=b"bytes", callback=b))
a = a2 = a
s.register_agent(a)
