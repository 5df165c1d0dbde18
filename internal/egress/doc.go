// Package egress is the way out to addresses that somebody else names: what may be connected to is decided by the address
// that is dialled, after the name was resolved, so that a name which changes its address meanwhile gains nothing.
//
// Without a permission only public addresses are reached, on the ports 80, 443 and from 1024 up. Private, loopback,
// link-local and other special addresses are refused in all their forms; among them are those where clouds give away
// credentials.
package egress
