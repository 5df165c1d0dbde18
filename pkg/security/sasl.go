package security

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// ErrTokenRefused says that a broker didn't take the token.
var ErrTokenRefused = errors.New("the broker refused the token")

// mechanism authenticates a connection; the secret is read for each.
func (c Config) mechanism() sasl.Mechanism {
	switch c.Mechanism {
	case Plain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := c.secret()
			return plain.Auth{User: c.Username, Pass: pass}, err
		})
	case OAuthBearer:
		return bearer{oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := c.secret()
			return oauth.Auth{Zid: c.Username, Token: token}, err
		})}
	}
	auth := func(context.Context) (scram.Auth, error) {
		pass, err := c.secret()
		return scram.Auth{User: c.Username, Pass: pass}, err
	}
	if c.Mechanism == ScramSHA256 {
		return scram.Sha256(auth)
	}
	return scram.Sha512(auth)
}

func (c Config) secret() (string, error) {
	s, err := c.Password.Read()
	if err != nil {
		return "", fmt.Errorf("%s: %w", EnvPassword, err)
	}
	return s, nil
}

// bearer tells of a refused token: a broker answers it with a text and no error code (RFC 7628, 3.2.2), which the
// client's own mechanism only finds unexpected.
type bearer struct{ sasl.Mechanism }

func (b bearer) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	s, first, err := b.Mechanism.Authenticate(ctx, host)
	return bearerSession{s}, first, err
}

type bearerSession struct{ sasl.Session }

func (s bearerSession) Challenge(answer []byte) (bool, []byte, error) {
	if len(answer) > 0 {
		return false, nil, fmt.Errorf("%w: it says %.200q", ErrTokenRefused, answer)
	}
	return s.Session.Challenge(answer)
}
