// Package client is the Go client of the registry's REST interface, generated from its OpenAPI file.
//
// New gives the generated client with three things of Reeve's own: the key on every request, a *ProblemError for every
// answer that is an error, and an *UnreachableError where no answer came. A caller never looks at a status:
//
//	c, err := client.New(client.Config{URL: "http://127.0.0.1:8765"})
//	answer, err := c.GetAgentWithResponse(ctx, "github.issues", "issue-triage")
//	if client.Code(err) == "agent_not_found" { … }
//	fmt.Println(answer.JSON200.Phase)
package client
