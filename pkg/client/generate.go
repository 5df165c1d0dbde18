package client

//go:generate env GOWORK=off go run -modfile=../../scripts/tools/go.mod github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen -config oapi-codegen.yaml ../../services/registry/api/openapi.yaml
