package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/internal/version"
)

func (c *command) version() *cobra.Command {
	var clientOnly bool
	cmd := &cobra.Command{
		Use: "version", Short: "Say the version of this program and of the registry", Args: exactly(0, "no arguments"),
		Example: "  reeve version\n  reeve version --client -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			own := version.Own()
			type theirs struct {
				URL        string `json:"url"`
				Version    string `json:"version,omitempty"`
				Compatible bool   `json:"compatible"`
			}
			answer := struct {
				Client   version.Build `json:"client"`
				Registry *theirs       `json:"registry,omitempty"`
			}{Client: own}
			var err error
			if !clientOnly {
				if err = c.askVersion(cmd.Context()); err == nil {
					v, _ := c.registryVersion()
					answer.Registry = &theirs{c.conn.URL, v, version.Compatible(own.Version, v)}
				}
			}
			wrote := c.write(answer, func() {
				c.facts("reeve", own.Version, "revision", own.Revision, "go", own.Go)
				if r := answer.Registry; r != nil {
					known := r.Version
					if known == "" {
						known = "(it doesn't say its version)"
					}
					c.facts("registry", known, "at", r.URL)
				}
			})
			if err != nil {
				return err
			}
			return wrote
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "ask no registry")
	return c.outputFlag(cmd)
}

// askVersion makes the registry say its version.
func (c *command) askVersion(ctx context.Context) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	_, err = cl.GetHealthWithResponse(ctx)
	return err
}
