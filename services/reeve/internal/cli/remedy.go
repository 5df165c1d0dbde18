package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/reeve-run/reeve/internal/version"
	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
)

// report says an error, and what to do about it.
func (c *command) report(ctx context.Context, err error) {
	c.warnOfVersion()
	var quiet silent
	if err == nil || errors.As(err, &quiet) {
		return
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	c.say("error: %s", inCommands(err.Error()))
	for _, remedy := range c.remedies(context.WithoutCancel(ctx), err) {
		c.say("%s", remedy)
	}
}

// warnOfVersion tells of a registry whose version doesn't go with this one.
func (c *command) warnOfVersion() {
	theirs, _ := c.registryVersion()
	if version.Compatible(version.Number, theirs) {
		return
	}
	which := "the registry"
	if version.Older(version.Number, theirs) {
		which = "this reeve"
	}
	c.say("warning: the registry at %s has version %s and this reeve %s, which may not understand each other: upgrade %s", c.conn.URL, theirs, version.Number, which)
}

// remedies are what to do about an error, beyond what it says itself.
func (c *command) remedies(ctx context.Context, err error) []string {
	var unreachable *client.UnreachableError
	var problem *client.ProblemError
	switch {
	case errors.As(err, &unreachable):
		return c.whyUnreachable(unreachable)
	case !errors.As(err, &problem):
		return nil
	}
	switch problem.Code {
	case "unauthorized":
		return []string{c.whyUnauthorized()}
	case "agent_not_found":
		return c.nearestAgent(ctx, problem.Instance)
	case "topic_not_found", "not_found":
		return c.nearestTopic(ctx)
	case "route_not_found", "method_not_allowed":
		return []string{c.whyNoRoute()}
	case "unexpected_answer":
		if strings.Contains(problem.Detail, "HTTP request to an HTTPS server") {
			return []string{"the registry speaks https: write https:// in the URL, which is from " + c.conn.URLFrom}
		}
		return []string{fmt.Sprintf("the URL is %s, from %s", c.conn.URL, c.conn.URLFrom)}
	}
	return nil
}

func (c *command) whyUnauthorized() string {
	if c.conn.KeyFrom == "" {
		return "no key was sent: give it in REEVE_API_KEY, or keep it in a profile (`reeve config set NAME --url " + c.conn.URL + " --api-key -`)"
	}
	return fmt.Sprintf("the key came from %s, and isn't the one of the registry at %s (from %s): give the right one there", c.conn.KeyFrom, c.conn.URL, c.conn.URLFrom)
}

func (c *command) whyNoRoute() string {
	theirs, heard := c.registryVersion()
	switch {
	case heard && theirs == "":
		return fmt.Sprintf("the registry doesn't say its version, so it is older than this reeve (%s): upgrade it", version.Number)
	case version.Older(theirs, version.Number):
		return fmt.Sprintf("the registry has version %s and doesn't know yet what this reeve (%s) asks for: upgrade it", theirs, version.Number)
	case version.Older(version.Number, theirs):
		return fmt.Sprintf("the registry has version %s and doesn't know any more what this reeve (%s) asks for: upgrade reeve", theirs, version.Number)
	}
	return fmt.Sprintf("the URL is %s, from %s: check that it has no path behind the host", c.conn.URL, c.conn.URLFrom)
}

func (c *command) whyUnreachable(err *client.UnreachableError) []string {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var dns *net.DNSError
	var timeout net.Error
	from := "; the URL is from " + c.conn.URLFrom
	switch {
	case errors.As(err, &unknown):
		return []string{"its certificate is from nobody who is trusted here: name the CA by `reeve config set PROFILE --ca FILE`, or in SSL_CERT_FILE" + from}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return []string{fmt.Sprintf("its certificate is valid from %s to %s, and it is %s now: renew it, or set the clock", moment(&invalid.Cert.NotBefore),
			moment(&invalid.Cert.NotAfter), time.Now().UTC().Format(time.RFC3339))}
	case errors.As(err, &host):
		return []string{"its certificate is for another name: use one of its names in the URL, or get a certificate for this one" + from}
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return []string{"it speaks http without TLS: write http:// in the URL" + from}
	case errors.As(err, &dns) && dns.IsNotFound:
		return []string{"there is no host of this name: check the URL" + from}
	case errors.As(err, &timeout) && timeout.Timeout():
		return []string{"it took too long: see whether a firewall stands between, and `reeve health`" + from}
	}
	return []string{"start a registry (`reeve dev` runs one), or say where it is: by --url, REEVE_URL or a profile (`reeve config set`)" + from}
}

// nearestAgent finds what may have been meant by the agent in the path of a problem, in bounded time.
func (c *command) nearestAgent(ctx context.Context, path string) []string {
	anyway := []string{"see `reeve agent list`"}
	parts := strings.Split(path, "/")
	if len(parts) < 5 || parts[1] != "v1" {
		return anyway
	}
	wanted := parts[3] + "/" + parts[4]
	ctx, cancel := bounded(ctx)
	defer cancel()
	cl, err := c.client()
	if err != nil {
		return anyway
	}
	refs, err := c.refs(ctx, cl)
	if err != nil {
		return anyway
	}
	if near := nearestRef(wanted, refs); near != "" {
		return []string{"did you mean " + near + "?"}
	}
	if topic := parts[3] + "/"; slices.ContainsFunc(refs, func(r string) bool { return strings.HasPrefix(r, topic) }) {
		return []string{"see `reeve agent list --topic " + parts[3] + "` for those of " + parts[3]}
	}
	if len(refs) == 0 {
		return []string{"no agent is registered: register some by `reeve apply -f agents.yaml`"}
	}
	return anyway
}

// nearestRef is the agent that most likely was meant: the nearest of those of which the topic or the name is the one that
// was written and the other is near, else the one with just this name on another topic.
func nearestRef(wanted string, refs []string) string {
	topic, name, _ := strings.Cut(wanted, "/")
	near := func(a, b string) bool { return a == b || spec.Nearest(a, []string{b}) != "" }
	var alike, same []string
	for _, r := range refs {
		t, n, _ := strings.Cut(r, "/")
		if t == topic && near(name, n) || n == name && near(topic, t) {
			alike = append(alike, r)
		}
		if n == name {
			same = append(same, r)
		}
	}
	if len(alike) == 0 && len(same) == 1 {
		return same[0]
	}
	return spec.Nearest(wanted, alike)
}

// nearestTopic finds what may have been meant by the topic that the command is about, in bounded time.
func (c *command) nearestTopic(ctx context.Context) []string {
	if c.topic == "" {
		return nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	cl, err := c.client()
	if err != nil {
		return nil
	}
	names, err := streams(ctx, cl)
	if err != nil {
		return nil
	}
	if near := spec.Nearest(c.topic, names); near != "" {
		return []string{"did you mean " + near + "?"}
	}
	return []string{"see `reeve bus streams`"}
}

// refs are the registered agents, as TOPIC/NAME.
func (c *command) refs(ctx context.Context, cl *client.ClientWithResponses) ([]string, error) {
	size := 1000
	answer, err := cl.ListAgentsWithResponse(ctx, &client.ListAgentsParams{PageSize: &size})
	if err != nil {
		return nil, err
	}
	out := make([]string, len(answer.JSON200.Items))
	for i, a := range answer.JSON200.Items {
		out[i] = a.Topic + "/" + a.Name
	}
	return out, nil
}
