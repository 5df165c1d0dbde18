package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
)

// principals are who the services are to Kafka.
type principals struct {
	all string
	of  map[string]*string // by service
}

// listedRight is a right of the list, as JSON.
type listedRight struct {
	Service      string   `json:"service"`
	Principal    string   `json:"principal,omitempty"`
	ResourceType string   `json:"resource_type"`
	PatternType  string   `json:"pattern_type"`
	Name         string   `json:"name"`
	Operations   []string `json:"operations"`
	Why          string   `json:"why"`
}

func (c *command) acls() *cobra.Command {
	var p plan
	var t tool
	var g kafka.Grant
	who := principals{of: map[string]*string{}}
	cmd := &cobra.Command{
		Use:   "acls",
		Short: "List the rights on Kafka that each service needs",
		Long: `List the rights on Kafka that each service needs, the least that suffice: what the services do at any time, with the
topics made by somebody else (` + "`reeve topics`" + `). --create-topics adds what they need to make them themselves.

The agents are those of -f and --agent, or where neither is given the registry's: their topics are read by the dispatcher.
--topic adds others, or with a star at the end all that begin so, such that an agent on them needs no new rights.
No right on the cluster is needed. --mend adds those to end a transaction that a broker which died forgot to end, one of
them on the cluster: without them that is told as an alert, and a person does it. ` + "`reeve doctor`" + ` names the rights that
are missing.`,
		Example: "  reeve acls -f agents.yaml\n  reeve acls --topic 'orders.*' --commands --principal User:reeve --command-config admin.properties",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.checkACLs(cmd, t, g, who); err != nil {
				return err
			}
			i, cfg, err := c.installation(cmd.Context(), p)
			if err != nil {
				return err
			}
			rights := i.Rights(g)
			if !t.commands {
				return c.listRights(rights, who)
			}
			for _, line := range t.allow(rights, who, cfg) {
				_, _ = fmt.Fprintln(c.Out, line)
			}
			return nil
		},
	}
	c.planFlags(cmd, &p)
	f := cmd.Flags()
	f.StringSliceVar(&g.Services, "service", nil, "only the rights of "+strings.Join(kafka.Services(), ", ")+" (an SDK program); may be repeated")
	f.StringSliceVar(&g.Topics, "topic", nil, "a further topic that agents listen to; a star at its end stands for any ending; may be repeated")
	f.StringSliceVar(&g.ReplyTopics, "reply-topic", nil, "a topic that events name in reply_to; a star at its end stands for any ending; may be repeated")
	f.BoolVar(&g.Create, "create-topics", false, "with the rights to make topics")
	f.BoolVar(&g.Mend, "mend", false, "with the rights to end a transaction that a broker forgot to end")
	f.StringVar(&who.all, "principal", "", "who the services are to Kafka, as User:NAME")
	for _, s := range kafka.Services() {
		who.of[s] = f.String("principal-"+s, "", "who the "+s+" is to Kafka, where that is another one")
	}
	completeFlag(cmd, "service", words(kafka.Services()...))
	t.flags(cmd, "kafka-acls.sh")
	return c.outputFlag(cmd)
}

func (c *command) checkACLs(cmd *cobra.Command, t tool, g kafka.Grant, who principals) error {
	if err := t.check(cmd); err != nil {
		return err
	}
	for _, s := range g.Services {
		if !slices.Contains(kafka.Services(), s) {
			return usage("--service %s is unknown: there are %s", s, strings.Join(kafka.Services(), ", "))
		}
	}
	for _, s := range kafka.Services() {
		for _, principal := range []string{who.all, *who.of[s]} {
			if principal != "" && !strings.HasPrefix(principal, "User:") {
				return usage("%q is no principal: write User:NAME, as for kafka-acls.sh", principal)
			}
		}
		wanted := len(g.Services) == 0 && s != kafka.Worker || slices.Contains(g.Services, s)
		if t.commands && wanted && who.principal(s) == "" {
			return usage("say who gets the rights of the %s: --principal User:NAME for all services, or --principal-%s User:NAME", s, s)
		}
	}
	return nil
}

// principal is who a service is; "" where nobody said. An SDK program is named for itself or with all.
func (p principals) principal(service string) string {
	if own := *p.of[service]; own != "" {
		return own
	}
	return p.all
}

// allow are the lines that grant rights, each once. A service that nobody is named for (an SDK program) gets none.
func (t *tool) allow(rights []kafka.Right, who principals, cfg config.Kafka) []string {
	var lines []string
	for _, r := range rights {
		principal := who.principal(r.Service)
		if principal == "" {
			continue
		}
		line := append(t.line("kafka-acls.sh", cfg), "--add", "--allow-principal", quote(principal))
		for _, op := range r.Operations {
			line = append(line, "--operation", op)
		}
		if r.Resource == kafka.OnCluster {
			line = append(line, "--cluster")
		} else {
			line = append(line, "--"+string(r.Resource), quote(r.Name), "--resource-pattern-type", r.Pattern())
		}
		if text := strings.Join(line, " "); !slices.Contains(lines, text) {
			lines = append(lines, text)
		}
	}
	return lines
}

func (c *command) listRights(rights []kafka.Right, who principals) error {
	list := []json.RawMessage{}
	for _, r := range rights {
		b, err := json.Marshal(listedRight{r.Service, who.principal(r.Service), string(r.Resource), r.Pattern(), r.Name, r.Operations, r.Why})
		if err != nil {
			return fmt.Errorf("write rights: %w", err)
		}
		list = append(list, b)
	}
	return writeListing(c, list, listing[listedRight]{
		columns: []string{"SERVICE", "RESOURCE", "PATTERN", "NAME", "OPERATIONS", "WHY"},
		row: func(r listedRight) []string {
			return []string{r.Service, r.ResourceType, r.PatternType, r.Name, strings.Join(r.Operations, ","), r.Why}
		},
		more:    []string{"PRINCIPAL"},
		moreRow: func(r listedRight) []string { return []string{r.Principal} },
	})
}
