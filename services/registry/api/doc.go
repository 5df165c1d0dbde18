// Package api is the registry's REST interface: openapi.yaml is its source, api.gen.go the server side made from it.
package api

import _ "embed"

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI is the interface's description, for /openapi.yaml.
func OpenAPI() []byte { return openAPI }
