package security

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/spec"
)

// Variables that a Config comes from.
const (
	EnvTLSCA     = "REEVE_KAFKA_TLS_CA"
	EnvTLSCert   = "REEVE_KAFKA_TLS_CERT"
	EnvTLSKey    = "REEVE_KAFKA_TLS_KEY"
	EnvMechanism = "REEVE_KAFKA_SASL_MECHANISM"
	EnvUsername  = "REEVE_KAFKA_SASL_USERNAME"
	EnvPassword  = "REEVE_KAFKA_SASL_PASSWORD"
)

// SystemCA as the CA stands for the authorities that the machine trusts.
const SystemCA = "system"

// SASL mechanisms.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
)

// Mechanisms are the SASL mechanisms that a Config may name.
func Mechanisms() []string { return []string{ScramSHA512, ScramSHA256, Plain, OAuthBearer} }

// Config says how brokers are reached. The zero value is plain text without authentication.
type Config struct {
	// TLSCA is a PEM file of the authorities that brokers' certificates are checked against, or SystemCA. Any of the three TLS
	// fields switches TLS on; empty then means SystemCA.
	TLSCA string
	// TLSCert and TLSKey are PEM files of the client's certificate and its key, both or none.
	TLSCert, TLSKey string
	// Mechanism is one of Mechanisms; empty for no SASL.
	Mechanism string
	// Username is who asks. Required, but with OAUTHBEARER, where the token says so and this is the authorization identity.
	Username string
	// Password is the password, or the token of OAUTHBEARER.
	Password Secret
}

// A Secret is a password or a token, or file: and the path of a file that holds it and is read at every authentication.
// It prints as dots.
type Secret string

// secretFile stands before the path of a file.
const secretFile = "file:"

// String doesn't tell it.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "••••"
}

// GoString keeps it out of %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText keeps it out of JSON, YAML and structured logs.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Read gives the secret itself.
func (s Secret) Read() (string, error) {
	path, ok := strings.CutPrefix(string(s), secretFile)
	if !ok {
		return string(s), nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	value := strings.TrimRight(string(b), "\r\n")
	if value == "" {
		return "", fmt.Errorf("read the secret: %s is empty", path)
	}
	return value, nil
}

// FromEnvironment reads a Config from variables; get gives "" for one that isn't set.
func FromEnvironment(get func(name string) string) Config {
	return Config{
		TLSCA: get(EnvTLSCA), TLSCert: get(EnvTLSCert), TLSKey: get(EnvTLSKey),
		Mechanism: strings.ToUpper(get(EnvMechanism)), Username: get(EnvUsername), Password: Secret(get(EnvPassword)),
	}
}

// UsesTLS reports whether connections are encrypted.
func (c Config) UsesTLS() bool { return c.TLSCA != "" || c.TLSCert != "" || c.TLSKey != "" }

// UsesSASL reports whether clients authenticate by SASL.
func (c Config) UsesSASL() bool { return c.Mechanism != "" }

// Protocol is the name that Kafka has for it: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
func (c Config) Protocol() string {
	switch {
	case c.UsesTLS() && c.UsesSASL():
		return "SASL_SSL"
	case c.UsesTLS():
		return "SSL"
	case c.UsesSASL():
		return "SASL_PLAINTEXT"
	}
	return "PLAINTEXT"
}

// Check reports everything that couldn't work at the given time, by the variable's name and with the remedy. It reads the
// files.
func (c Config) Check(now time.Time) error {
	return errors.Join(c.checkTLS(now), c.checkSASL())
}

func (c Config) checkTLS(now time.Time) error {
	if !c.UsesTLS() {
		return nil
	}
	var errs []error
	if _, err := c.authorities(now); err != nil {
		errs = append(errs, err)
	}
	switch {
	case c.TLSCert != "" && c.TLSKey == "":
		errs = append(errs, fmt.Errorf("%s: is not set, and %s is: give the file of the certificate's key", EnvTLSKey, EnvTLSCert))
	case c.TLSCert == "" && c.TLSKey != "":
		errs = append(errs, fmt.Errorf("%s: is not set, and %s is: give the file of the key's certificate", EnvTLSCert, EnvTLSKey))
	case c.TLSCert != "":
		if _, err := c.certificate(now); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c Config) checkSASL() error {
	if c.Mechanism == "" {
		if c.Username != "" || c.Password != "" {
			return fmt.Errorf("%s: is not set, and a user or a password is: give one of %s", EnvMechanism, strings.Join(Mechanisms(), ", "))
		}
		return nil
	}
	if !slices.Contains(Mechanisms(), c.Mechanism) {
		hint := ""
		if near := nearest(c.Mechanism); near != "" {
			hint = "did you mean " + near + "? "
		}
		return fmt.Errorf("%s: %q is unknown: %sthere are %s", EnvMechanism, c.Mechanism, hint, strings.Join(Mechanisms(), ", "))
	}
	var errs []error
	if c.Username == "" && c.Mechanism != OAuthBearer {
		errs = append(errs, fmt.Errorf("%s: is not set: %s needs a user", EnvUsername, c.Mechanism))
	}
	if c.Password == "" {
		what := "the password"
		if c.Mechanism == OAuthBearer {
			what = "the token"
		}
		errs = append(errs, fmt.Errorf("%s: is not set: give %s, or file:PATH of a file that holds it", EnvPassword, what))
	} else if _, err := c.Password.Read(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w: give file:PATH of a file that can be read and holds it", EnvPassword, err))
	}
	return errors.Join(errs...)
}

// nearest is the mechanism that begins so, else one with nearly this name.
func nearest(name string) string {
	for _, m := range Mechanisms() {
		if strings.HasPrefix(m, name) {
			return m
		}
	}
	return spec.Nearest(name, Mechanisms())
}

// Warnings are what works and shouldn't be so.
func (c Config) Warnings() []string {
	if !c.UsesTLS() && (c.Mechanism == Plain || c.Mechanism == OAuthBearer) {
		return []string{fmt.Sprintf("%s is %s and there is no TLS: the password or token travels readable; set %s to the file of the brokers' authority, or to %s", EnvMechanism, c.Mechanism, EnvTLSCA, SystemCA)}
	}
	return nil
}

// Opts are the options of a client. What can't be read is an error of the client's connections.
func (c Config) Opts() []kgo.Opt {
	var opts []kgo.Opt
	if c.UsesTLS() {
		opts = append(opts, kgo.Dialer(c.Dialer()))
	}
	if c.UsesSASL() {
		opts = append(opts, kgo.SASL(c.mechanism()))
	}
	return opts
}

// dialLimit bounds a connection, the client's own default.
const dialLimit = 10 * time.Second

// Dialer connects to host:port as the Config says: with TLS, if it is used, by certificates that are read anew where
// their files have changed.
func (c Config) Dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: dialLimit}
	if !c.UsesTLS() {
		return plain.DialContext
	}
	files := newCache(c)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		settings, err := files.config(time.Now())
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{NetDialer: plain, Config: settings}).DialContext(ctx, network, address)
	}
}
