// Package api is the registry's REST interface: openapi.yaml is its source, api.gen.go the server side made from it.
package api
