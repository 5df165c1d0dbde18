package deliver

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/reeve-run/reeve/pkg/route"
)

const (
	secretPrefix = "whsec_"
	// Lengths of a secret in bytes, as Standard Webhooks has them.
	minSecret, maxSecret = 24, 64
	// reread is how often it is looked whether the file has changed.
	reread = 2 * time.Second
)

// everybody is the entry for URLs that no other one is about.
const everybody = "*"

// Secrets are the signing secrets of endpoints, from a file that is read again when it changes. A nil Secrets has none. It
// is safe for concurrent use.
type Secrets struct {
	path   string
	logger *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	entries []entry // the most specific first
	seen    os.FileInfo
	looked  time.Time
	told    string // of what is wrong with the file
}

// entry is the secrets of the URLs that begin so.
type entry struct {
	endpoint string // scheme://host:port; "" where the scheme doesn't matter
	host     string // host or host:port, where endpoint is ""
	path     string
	signers  []*standardwebhooks.Webhook
}

// LoadSecrets reads a file. It maps URLs, of which it gives the beginning, or hosts to one secret or several: all of them
// sign, so that receivers can change from one to the next. "*" is for all others. Later changes that can't be read are
// logged, and what was read before goes on.
func LoadSecrets(path string, logger *slog.Logger) (*Secrets, error) {
	s := &Secrets{path: path, logger: logger, now: time.Now}
	return s, s.read()
}

func (s *Secrets) read() error {
	info, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("read webhook secrets: %w", err)
	}
	s.seen = info
	if open := info.Mode().Perm() & 0o027; open != 0 {
		return fmt.Errorf("read webhook secrets: %s may be read or changed by others (%v): chmod 600 it, or 640 for a group", s.path, info.Mode().Perm())
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("read webhook secrets: %w", err)
	}
	entries, err := parseSecrets(text)
	if err != nil {
		return fmt.Errorf("read webhook secrets: %s: %w", s.path, err)
	}
	s.entries = entries
	return nil
}

func parseSecrets(text []byte) ([]entry, error) {
	var file map[string]any
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, errors.New("it is no YAML that maps URLs to secrets, each once") // the parser's own words quote the file
	}
	var entries []entry
	for key, value := range file {
		e, err := parseEntry(key)
		if err != nil {
			return nil, err
		}
		if e.signers, err = parseSigners(value); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return b.rank() - a.rank() })
	return entries, nil
}

// parseEntry reads what an entry is about.
func parseEntry(key string) (entry, error) {
	if key == everybody {
		return entry{}, nil
	}
	if !strings.Contains(key, "://") {
		u, err := url.Parse("http://" + key)
		if err != nil || u.Host != key || u.Hostname() == "" {
			return entry{}, fmt.Errorf("%q is neither a URL's beginning (https://host/path), a host nor *", key)
		}
		return entry{host: strings.ToLower(key)}, nil
	}
	u, err := url.Parse(key)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return entry{}, fmt.Errorf("%q is no http or https URL without user, query and fragment", key)
	}
	return entry{endpoint: route.Endpoint(u), path: strings.TrimSuffix(u.EscapedPath(), "/")}, nil
}

// parseSigners reads one secret or several.
func parseSigners(value any) ([]*standardwebhooks.Webhook, error) {
	list, several := value.([]any)
	if !several {
		list = []any{value}
	}
	var out []*standardwebhooks.Webhook
	for _, item := range list {
		text, ok := item.(string)
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, secretPrefix))
		if !ok || !strings.HasPrefix(text, secretPrefix) || err != nil || len(key) < minSecret || len(key) > maxSecret {
			return nil, fmt.Errorf("a secret is %s and the base64 of %d to %d random bytes: echo %s$(openssl rand -base64 32)", secretPrefix, minSecret, maxSecret, secretPrefix)
		}
		signer, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			return nil, errors.New("a secret can't be used")
		}
		out = append(out, signer)
	}
	if len(out) == 0 {
		return nil, errors.New("it has no secret: give one, or leave the entry out")
	}
	return out, nil
}

// rank is higher for what is more specific.
func (e entry) rank() int {
	switch {
	case e.endpoint != "":
		return 1000 + len(e.path)
	case strings.Contains(e.host, ":"):
		return 2
	case e.host != "":
		return 1
	}
	return 0
}

func (e entry) fits(u *url.URL) bool {
	switch {
	case e.endpoint != "":
		path := u.EscapedPath()
		return e.endpoint == route.Endpoint(u) && strings.HasPrefix(path, e.path) && (len(path) == len(e.path) || path[len(e.path)] == '/')
	case e.host != "":
		_, withPort, _ := strings.Cut(route.Endpoint(u), "://")
		return e.host == withPort || e.host == strings.ToLower(u.Hostname()) || e.host == "["+strings.ToLower(u.Hostname())+"]"
	}
	return true
}

// Of gives the signers of a URL; none where it has no secret.
func (s *Secrets) Of(u *url.URL) []*standardwebhooks.Webhook {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	for _, e := range s.entries {
		if e.fits(u) {
			return e.signers
		}
	}
	return nil
}

// refresh reads the file again where it has changed.
func (s *Secrets) refresh() {
	now := s.now()
	if now.Sub(s.looked) < reread {
		return
	}
	s.looked = now
	info, err := os.Stat(s.path)
	if err == nil && os.SameFile(info, s.seen) && info.ModTime().Equal(s.seen.ModTime()) && info.Size() == s.seen.Size() && info.Mode() == s.seen.Mode() {
		return
	}
	if err == nil {
		err = s.read()
	}
	if err != nil {
		if err.Error() == s.told {
			return
		}
		s.told = err.Error()
		s.logger.Warn("the changed webhook secrets can't be read: those from before go on", slog.Any("error", err))
		return
	}
	s.told = ""
	s.logger.Info("webhook secrets were read again", slog.Int("entries", len(s.entries)))
}
