package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeve-run/reeve/internal/version"
	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/profile"
)

// answerWithin is how long a registry may think about one request. It bounds its own work to 20 s.
const answerWithin = time.Minute

// connection is where the registry is and with what key it is asked, and who said so.
type connection struct {
	URL     string `json:"url"`
	URLFrom string `json:"url_from"` // --url, REEVE_URL, a profile, or the default
	KeyFrom string `json:"api_key_from,omitempty"`
	CA      string `json:"ca,omitempty"`
	Profile string `json:"profile,omitempty"` // the one that anything was taken from

	key string
}

// connection decides where the registry is. Flags win over the environment, which wins over the current profile; a
// profile that is named by --profile is a flag's. Where --url or REEVE_URL says where to go, the current profile is left
// out altogether, and so is REEVE_PROFILE's by --url: its key is for its own registry.
func (c *command) connection() (connection, error) {
	var p profile.Profile
	name := c.profileName()
	outside := c.url != "" || c.variable("REEVE_URL") != ""
	if c.url != "" && c.profile == "" {
		name = ""
	}
	if name != "" || !outside {
		file, err := c.profiles()
		if err != nil {
			return connection{}, err
		}
		if name == "" {
			name = file.Current
		}
		if name != "" {
			if p, err = find(file, name); err != nil {
				return connection{}, err
			}
		}
	}
	conn := c.place(name, p)
	key, from := c.variable("REEVE_API_KEY"), "REEVE_API_KEY"
	if p.KeyFrom() != "" && (key == "" || c.profile != "") {
		var err error
		if key, err = p.Key(c.variable); err != nil {
			return conn, failure(Failed, "profile %s: %w", name, err)
		}
		from = "profile " + name + " (" + p.KeyFrom() + ")"
	}
	if key != "" {
		conn.key, conn.KeyFrom = key, from
	}
	return conn, nil
}

// profileName is the profile that the command line or the environment names.
func (c *command) profileName() string {
	if c.profile != "" {
		return c.profile
	}
	return c.variable("REEVE_PROFILE")
}

// place decides the URL.
func (c *command) place(name string, p profile.Profile) connection {
	conn := connection{Profile: name, CA: p.CA}
	ofProfile := "profile " + name
	for _, s := range []struct{ url, from string }{
		{c.url, "--url"},
		{map[bool]string{true: p.URL}[c.profile != ""], ofProfile},
		{c.variable("REEVE_URL"), "REEVE_URL"},
		{p.URL, ofProfile},
		{client.DefaultURL, "the default"},
	} {
		if s.url != "" {
			conn.URL, conn.URLFrom = s.url, s.from
			return conn
		}
	}
	return conn
}

// profiles reads the person's profiles; where there is no place for them there are none.
func (c *command) profiles() (profile.File, error) {
	path, err := profile.Path(c.variable)
	if err != nil {
		return profile.File{}, nil
	}
	file, err := profile.Read(path)
	if err != nil {
		return file, failure(Failed, "read the profiles: %w", err)
	}
	if file.Exposed(path) {
		c.say("warning: %s holds a key and can be read by others: chmod 600 %s", path, path)
	}
	return file, nil
}

// find gives a profile by its name.
func find(file profile.File, name string) (profile.Profile, error) {
	if p, ok := file.Profiles[name]; ok {
		return p, nil
	}
	names := file.Names()
	if len(names) == 0 {
		return profile.Profile{}, failure(NotFound, "there is no profile %s, nor any other: make it by `reeve config set %s --url URL`", name, name)
	}
	hint := ""
	if near := spec.Nearest(name, names); near != "" {
		hint = "did you mean " + near + "? "
	}
	return profile.Profile{}, failure(NotFound, "there is no profile %s: %sthere are %s", name, hint, strings.Join(names, ", "))
}

// client connects to the registry, once for a command.
func (c *command) client() (*client.ClientWithResponses, error) {
	if c.registry != nil {
		return c.registry, nil
	}
	conn, err := c.connection()
	if err != nil {
		return nil, err
	}
	c.conn = conn
	transport, err := conn.transport()
	if err != nil {
		return nil, err
	}
	cl, err := client.New(client.Config{URL: conn.URL, Key: conn.key, HTTP: &http.Client{Transport: &listener{next: transport, version: &c.theirs, late: c.late}}})
	if err != nil {
		return nil, usage("%s: %w", conn.URLFrom, err)
	}
	c.registry = cl
	return cl, nil
}

// transport carries requests, by the profile's CA where it has one.
func (conn connection) transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = answerWithin
	if conn.CA == "" {
		return t, nil
	}
	pool, err := roots(conn.CA)
	if err != nil {
		return nil, failure(Failed, "profile %s: %w", conn.Profile, err)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// roots are the certificates in a CA's file.
func roots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate: give a CA's as PEM", path)
	}
	return pool, nil
}

// lateAfter is how long an answer may take before a person is told what is waited for.
const lateAfter = 4 * time.Second

// late tells a person that the registry takes its time.
func (c *command) late() {
	c.say("waiting for the registry at %s, which hasn't answered for %s: `reeve health` says what it waits for itself", c.conn.URL, lateAfter)
}

// listener hears which version the registry says that it is, and tells once of an answer that is late.
type listener struct {
	next    http.RoundTripper
	version *atomic.Pointer[string]
	late    func()
	told    sync.Once
}

// RoundTrip sends a request on. What it tells is told when it returns.
func (l *listener) RoundTrip(r *http.Request) (*http.Response, error) {
	said := make(chan struct{})
	timer := time.AfterFunc(lateAfter, func() {
		defer close(said)
		l.told.Do(l.late)
	})
	resp, err := l.next.RoundTrip(r)
	if !timer.Stop() {
		<-said
	}
	if err == nil {
		v := resp.Header.Get(version.Header)
		l.version.Store(&v)
	}
	return resp, err
}

// registryVersion is what the registry said; heard is whether it answered at all.
func (c *command) registryVersion() (v string, heard bool) {
	if p := c.theirs.Load(); p != nil {
		return *p, true
	}
	return "", false
}

// bounded gives a side question a second.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Second)
}
