// Package agentsfile reads agents.yaml: the list of agents that `reeve apply` and `reeve dev` register.
//
// A file is taken as a whole or not at all. Every fault is found in one pass and told with file, line, column and
// remedy: a key that isn't known (with the nearest one that is), a value of the wrong kind, a key of a later version
// (refused by name, since a key that is accepted and ignored is a promise broken in silence), a directory that leads
// out of the agents directory, two agents of one name.
//
// What the file leaves out is inferred here, so that what is sent to the registry says everything: the runtime from
// the callback or the command, the name from the topic, the defaults from package spec.
package agentsfile
