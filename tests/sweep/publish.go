package sweep

// Content is what an event of the sweep asks of the agent.
type Content struct {
	Seq    int  `json:"seq"`
	WorkUS int  `json:"work_us"`
	Fails  int  `json:"fails,omitempty"`
	Poison bool `json:"poison,omitempty"`
}
