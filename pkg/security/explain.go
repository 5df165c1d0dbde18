package security

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Problem is what an error of a client has to do with security.
type Problem struct {
	// What is wrong, and Remedy what to do.
	What, Remedy string
	// Rights says that the broker knows who asks and doesn't let them.
	Rights bool
	// Guess says that the connection ended without a word, so that it may be something else that passes.
	Guess bool
}

// Diagnose finds what an error of a client has to do with security; ok is false where it is about something else. Where
// it is, and isn't a guess, trying again without a change of files, settings or rights doesn't help.
func (c Config) Diagnose(err error) (p Problem, ok bool) {
	for _, look := range []func(error) (Problem, bool){c.ofFiles, c.ofCertificates, c.ofTLS, c.ofSASL, ofRights} {
		if p, ok := look(err); ok {
			return p, true
		}
	}
	return Problem{}, false
}

// Denied reports whether the broker refused something for want of a right.
func Denied(err error) bool {
	_, ok := ofRights(err)
	return ok
}

func (c Config) ofFiles(err error) (Problem, bool) {
	if file, ok := errors.AsType[*FileError](err); ok {
		return Problem{What: "the TLS settings can't be used", Remedy: file.Error()}, true
	}
	return Problem{}, false
}

func (c Config) ofCertificates(err error) (Problem, bool) {
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if bad.Reason == x509.Expired && bad.Cert != nil {
			return Problem{What: "the broker's certificate doesn't hold: it " + untimely(bad.Cert, time.Now()), Remedy: "give the broker another one"}, true
		}
		return Problem{What: "the broker's certificate doesn't hold", Remedy: "give the broker another one"}, true
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		who := ""
		if unknown.Cert != nil {
			who = fmt.Sprintf(" (issuer %q)", unknown.Cert.Issuer.String())
		}
		ca := c.TLSCA
		if ca == "" {
			ca = SystemCA
		}
		return Problem{What: "the broker's certificate is of an authority that isn't trusted" + who,
			Remedy: fmt.Sprintf("give that authority's PEM file in %s, which is %q now", EnvTLSCA, ca)}, true
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return Problem{What: fmt.Sprintf("the broker's certificate isn't for the name %q", name.Host),
			Remedy: "reach the brokers by a name that the certificate has (REEVE_KAFKA_BROKERS, and their advertised.listeners), or give them one with that name"}, true
	}
	return Problem{}, false
}

func (c Config) ofTLS(err error) (Problem, bool) {
	_, record := errors.AsType[tls.RecordHeaderError](err)
	alertRead := err != nil && strings.Contains(err.Error(), "tls alert record") // the client has no type for it
	eof, first := errors.AsType[*kgo.ErrFirstReadEOF](err)
	alert, ended := errors.AsType[*net.OpError](err)
	switch {
	case record, c.UsesTLS() && first && strings.Contains(eof.Error(), "after a dial"):
		return Problem{What: "the broker doesn't speak TLS at this address", Guess: !record,
			Remedy: "unset REEVE_KAFKA_TLS_…, or give the address of its TLS listener in REEVE_KAFKA_BROKERS"}, true
	case !c.UsesTLS() && (alertRead || first && strings.Contains(eof.Error(), "TLS missing")):
		return Problem{What: "the broker speaks TLS at this address, it seems", Guess: !alertRead,
			Remedy: fmt.Sprintf("set %s to the PEM file of its authority, or to %s", EnvTLSCA, SystemCA)}, true
	case ended && alert.Op == "remote error": // an alert; crypto/tls has no type for it either
		return c.ofAlert(alert.Err), true
	}
	return Problem{}, false
}

// ofAlert is what a broker has against a client's certificate, mostly.
func (c Config) ofAlert(alert error) Problem {
	if c.TLSCert == "" {
		return Problem{What: fmt.Sprintf("the broker ended the TLS handshake (%v)", alert),
			Remedy: fmt.Sprintf("it may want a client certificate: give one in %s and %s", EnvTLSCert, EnvTLSKey)}
	}
	return Problem{What: fmt.Sprintf("the broker refused the client's certificate (%v)", alert),
		Remedy: fmt.Sprintf("give one in %s that the broker's truststore knows and that hasn't expired", EnvTLSCert)}
}

func (c Config) ofSASL(err error) (Problem, bool) {
	eof, first := errors.AsType[*kgo.ErrFirstReadEOF](err)
	switch {
	case errors.Is(err, ErrTokenRefused):
		return Problem{What: "the broker refused the token", Remedy: fmt.Sprintf("give a valid one in %s, or file:PATH of a file that is kept fresh", EnvPassword)}, true
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return Problem{What: fmt.Sprintf("the broker refused the credentials of %q (%s)", c.Username, c.Mechanism),
			Remedy: fmt.Sprintf("check %s and %s, and that the user exists for this mechanism", EnvUsername, EnvPassword)}, true
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return Problem{What: fmt.Sprintf("the broker doesn't offer the mechanism %q at this address", c.Mechanism),
			Remedy: fmt.Sprintf("set %s to one that it does, or give the address of another listener in REEVE_KAFKA_BROKERS", EnvMechanism)}, true
	case !c.UsesSASL() && first && strings.Contains(eof.Error(), "SASL missing"):
		return Problem{What: "the broker ended the connection at the first request, as it does where it wants SASL", Guess: true,
			Remedy: fmt.Sprintf("set %s, %s and %s", EnvMechanism, EnvUsername, EnvPassword)}, true
	case err != nil && strings.Contains(err.Error(), EnvPassword+":"):
		return Problem{What: "the password or token can't be read", Remedy: "give file:PATH of a file that can be read and isn't empty"}, true
	}
	return Problem{}, false
}

func ofRights(err error) (Problem, bool) {
	const remedy = "`reeve acls` prints the rights that are needed, `reeve doctor` names those that are missing"
	for _, denied := range []struct {
		err  error
		what string
	}{
		{kerr.TopicAuthorizationFailed, "Kafka's ACLs don't allow this on the topic"},
		{kerr.GroupAuthorizationFailed, "Kafka's ACLs don't allow this on the consumer group"},
		{kerr.TransactionalIDAuthorizationFailed, "Kafka's ACLs don't allow the transactional id"},
		{kerr.ClusterAuthorizationFailed, "Kafka's ACLs don't allow this on the cluster"},
	} {
		if errors.Is(err, denied.err) {
			return Problem{What: denied.what, Remedy: remedy, Rights: true}, true
		}
	}
	return Problem{}, false
}
