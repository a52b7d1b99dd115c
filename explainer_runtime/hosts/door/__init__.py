"""The door: what stands between the network and a server, before anything is believed, parsed or computed."""
