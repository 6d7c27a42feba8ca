# Five secrets on a server whose root is not kept: copy this, and change the references.
{
  services.onepassword-secrets = {
    enable = true;
    # A string, never a path of Nix: that would copy the token where all users can read it.
    tokenFile = "/root/.config/op/token";
    # With impermanence: keeps the token's directory, and the sealed cache, from which everything starts without a network.
    persistence.root = "/persist";

    secrets = {
      openai-api-key = {
        reference = "op://Infrastructure Secrets/OpenAI/credential";
        owner = "opencode";
        mode = "0400";
      };
      datadog-api-key = {
        reference = "op://Infrastructure Secrets/Datadog/credential";
        owner = "opencode";
        mode = "0400";
      };
      cloudflare-api-token = {
        reference = "op://Infrastructure Secrets/Cloudflare/token";
        path = "cloudflare-token";
        owner = "caddy";
        mode = "0400";
        # caddy starts when the file is there, and is restarted when it changes.
        services = [ "caddy" ];
      };
      backblaze-credentials = {
        reference = "op://Infrastructure Secrets/Backblaze/credentials";
        path = "backblaze-credentials.json";
        owner = "opencode";
        mode = "0400";
      };
    };

    templates.opencode-env = {
      template = ''
        OPENAI_API_KEY={{ op://Infrastructure Secrets/OpenAI/credential | env }}
        DATADOG_API_KEY={{ op://Infrastructure Secrets/Datadog/credential | env }}
      '';
      path = "opencode.env";
      owner = "opencode";
      mode = "0400";
      services = [ "opencode" ];
    };
  };

  systemd.services.opencode = {
    wantedBy = [ "multi-user.target" ];
    # The best way: in memory, for this unit alone, as $CREDENTIALS_DIRECTORY/openai-api-key.
    onepassword.credentials.openai-api-key = "op://Infrastructure Secrets/OpenAI/credential";
    serviceConfig.EnvironmentFile = "/run/secrets/opencode.env";
  };
}
