//go:build !synctests

package brokersim

// virtual tells that the Kafka client's locks can be waited for in virtual time.
const virtual = false
