# What a server of its own would bring to the example: the programs and users. They show what they got.
{ lib, ... }:
let
  shows = what: { Type = "oneshot"; RemainAfterExit = true; ExecStart = "/bin/sh -c '${what}'"; };
in
{
  imports = [ ../../docs/examples/hetzner-vps/configuration.nix ];
  systemd.services.opencode.serviceConfig = shows "cat $CREDENTIALS_DIRECTORY/openai-api-key; echo $DATADOG_API_KEY" // {
    User = "opencode";
    StandardOutput = "truncate:/run/opencode.got";
  };
  systemd.services.caddy = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig = shows "cat /run/secrets/cloudflare-token" // {
      User = "caddy";
      StandardOutput = "truncate:/run/caddy.got";
    };
  };
}
